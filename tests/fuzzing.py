"""How many cases a fuzzed law is tried on: 500, or as many as the profile `nightly` says."""

import hypothesis

CASES = 500


def fuzzed(law):
    """A law under `hypothesis.given`, tried on 500 cases, or on 10 000 with STEADY_FUZZ=nightly."""

    def settings():
        profile = hypothesis.settings.default
        return hypothesis.settings(profile, max_examples=max(CASES, profile.max_examples))

    return settings()(law)
