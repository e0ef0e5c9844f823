#!/bin/sh
# Refresh web/static/vendor, everything that the pages load, from the pinned npm packages.
#   cd web/npm && npm ci --ignore-scripts && ../vendor.sh
set -eu
cd "$(dirname "$0")"
modules=npm/node_modules
out=static/vendor
test -d "$modules/mathjax" || { echo "vendor.sh: $modules is missing; run 'npm ci --ignore-scripts' in web/npm first" >&2; exit 1; }

rm -rf "$out"
mkdir -p "$out/vega" "$out/mathjax/output/chtml/fonts" "$out/mathjax/input/tex" "$out/mathjax/sre/mathmaps"

for name in vega vega-lite vega-embed; do
    cp "$modules/$name/build/$name.min.js" "$out/vega/"
    cp "$modules/$name/LICENSE" "$out/vega/LICENSE-$name"
done

cp "$modules/mathjax/es5/tex-chtml.js" "$modules/mathjax/LICENSE" "$out/mathjax/"
cp -r "$modules/mathjax/es5/output/chtml/fonts/woff-v2" "$out/mathjax/output/chtml/fonts/"
cp -r "$modules/mathjax/es5/input/tex/extensions" "$out/mathjax/input/tex/"
# MathJax's own menu loads these on demand: the explorer, speech in English, Nemeth braille, MathML input.
cp -r "$modules/mathjax/es5/a11y" "$out/mathjax/"
for map in base en nemeth; do
    cp "$modules/mathjax/es5/sre/mathmaps/$map.json" "$out/mathjax/sre/mathmaps/"
done
cp -r "$modules/mathjax/es5/input/mml.js" "$modules/mathjax/es5/input/mml" "$out/mathjax/input/"

{
    echo "Copied by web/vendor.sh from the npm packages pinned in web/npm/package-lock.json:"
    for name in mathjax vega vega-lite vega-embed; do
        version=$(sed -n 's/^ *"version": *"\([^"]*\)".*/\1/p' "$modules/$name/package.json" | head -n 1)
        echo "$name $version"
    done
} > "$out/VERSIONS.txt"
du -sk "$out"/*
