"""Where an arm is looked at: its name and the condition that its runs were made under."""

from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field

from steadydescent.study.yaml_files import Checked


class Place(NamedTuple):
    """An arm under a condition."""

    condition: str
    arm: str

    def label(self, condition: str) -> str:
        """The arm's name in a row about `condition`; of another condition, with that one's name.

        >>> Place("linear", "last").label("linear"), Place("linear", "last").label("constant")
        ('last', 'last@linear')
        """
        return self.arm if self.condition == condition else f"{self.arm}@{self.condition}"


class ArmInFile(Checked):
    """An arm as a file names it: `last`, or `{arm: last, condition: linear}`.

    Without a condition of its own it stands under the one that is asked about.
    """

    arm: Annotated[str, Field(min_length=1)]
    condition: str | None = None

    def under(self, condition: str) -> Place:
        """Where the arm is looked at when a row is about `condition`."""
        return Place(condition if self.condition is None else self.condition, self.arm)


def _of_text(value: Any) -> Any:
    return ArmInFile(arm=value) if isinstance(value, str) and value else value


StatedArm = Annotated[ArmInFile, BeforeValidator(_of_text)]
"""The type of a field that holds an arm; a plain name is one, too."""
