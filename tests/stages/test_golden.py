"""What each rule depends on is the same as before, in each shipped configuration."""

import json

import golden


def test_the_settings_of_each_stage_are_as_they_were() -> None:
    """A deliberate change: `python tests/golden.py`, and look at the diff of golden.json."""
    known, found = json.loads(golden.FILE.read_text()), golden.checksums()
    assert known.keys() == found.keys()
    changed = {
        name: [stage for stage in {**known[name], **found[name]}
               if known[name].get(stage) != found[name].get(stage)]
        for name in found
    }  # fmt: skip
    assert not any(changed.values()), {name: stages for name, stages in changed.items() if stages}
