// Run each Vega-Lite chart with the vendored libraries: no eval (ast), no network, colours of the current scheme.
(() => {
  const ink = { light: ["#1c2430", "#d9dee5"], dark: ["#e4e8ee", "#414a57"] };
  const colours = {
    light: ["#0b62a4", "#b8430a", "#0a7558", "#96398a", "#7a6100", "#57616d"],
    dark: ["#6cb6ff", "#ff9d66", "#5fd3a6", "#e39bd3", "#e2c45a", "#aab4c0"],
  };
  const mode = () => (document.documentElement.dataset.theme === "dark" ? "dark" : "light");
  const live = new Map();

  function config(width) {
    const [text, grid] = ink[mode()];
    const narrow = width < 520;
    return {
      background: "transparent",
      font: getComputedStyle(document.body).fontFamily,
      view: { stroke: null },
      range: { category: colours[mode()] },
      axis: {
        labelColor: text, titleColor: text, gridColor: grid, domainColor: grid, tickColor: grid,
        labelFontSize: 12, titleFontSize: 13, titleFontWeight: "normal", titlePadding: 8,
      },
      legend: {
        labelColor: text, titleColor: text, symbolBaseFillColor: text, symbolBaseStrokeColor: text,
        labelFontSize: 12, titleFontSize: 12, title: null, orient: "top", columns: narrow ? 1 : 0,
        layout: { top: { direction: narrow ? "vertical" : "horizontal", anchor: "start" } },
      },
      point: { opacity: 1 },
      header: { labelColor: text, titleColor: text },
      title: { color: text },
    };
  }

  // What the reader has set with a slider or a menu, to be kept when the chart is drawn again.
  function settings(view) {
    const keep = (name) => !/^(width|height|concat|cell|child|unit)/.test(name);
    return view.getState({ signals: keep, data: () => false }).signals;
  }

  async function draw(box) {
    const spec = JSON.parse(box.querySelector('script[type="application/json"]').textContent);
    const old = live.get(box);
    const signals = old ? settings(old.view) : {};
    if (old) old.finalize();
    const options = { ast: true, actions: false, renderer: "svg", config: config(box.clientWidth), defaultStyle: false };
    const result = await vegaEmbed(box.querySelector(".vegachart-view"), spec, options);
    live.set(box, result);
    for (const parameter of spec.params || []) {
      if (parameter.bind && parameter.name in signals) result.view.signal(parameter.name, signals[parameter.name]);
    }
    await result.view.runAsync();
    box.dataset.ready = mode();
  }

  const drawAll = () => document.querySelectorAll(".vegachart").forEach((box) => draw(box).catch((error) => {
    console.error(error);
    box.dataset.ready = "failed";
  }));
  let last = mode();
  new MutationObserver(() => {
    if (mode() !== last) { last = mode(); drawAll(); }
  }).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  drawAll();
})();
