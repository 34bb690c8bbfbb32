"""What the parameters of a stanh file say; reading them needs no network."""
from typing import NamedTuple

from ..container import Header
from ..errors import DamagedFile

TRUNCATABLE = False
STEPS = 256  # positions between two neighboring rate points


class Position(NamedTuple):
    """A place on the quality scale: level k and α/256."""
    level: int
    alpha: int


def quality_of(position: Position, points: int) -> float:
    """Quality of a position of a model with a number of rate points; the inverse of `position_of`."""
    return 100 * (position.level * STEPS + position.alpha) / (STEPS * max(1, points - 1))


def settled(
    position: Position,
    anchors: list,  # anchor of each rate point
) -> Position:
    """The position itself; between two anchors, where nothing can be interpolated, the nearer point."""
    level, alpha = position
    if not alpha or anchors[level] == anchors[level + 1]: return position
    return Position(level + (2 * alpha >= STEPS), 0)


def parse_params(
    params: bytes,  # of the container's header
    points: int,    # rate points of the model
) -> tuple[Position, int]:  # position and check value
    """Read level, α and check value; raises `DamagedFile` if they do not fit the model."""
    if len(params) != 6: raise DamagedFile(f"{len(params)} bytes of parameters where 6 belong; the file is damaged")
    position = Position(params[0], params[1])
    if position.level + (position.alpha > 0) >= points: raise DamagedFile(f"rate level {position.level} of a model that has {points}; the file is damaged")
    return position, int.from_bytes(params[2:], "little")


def describe_params(
    header: Header,
    config: dict,   # of the model
) -> dict:
    """What a file's own parameters mean: quality, level, α, anchor and λ."""
    points = config["points"]
    position, check = parse_params(header.params, len(points))
    point = points[settled(position, [p["anchor"] for p in points]).level]
    return {"quality": round(quality_of(position, len(points)), 3), "level": position.level, "alpha": position.alpha / STEPS, "anchor": point["anchor"], "lambda": point["lambda"], "check": f"{check:08x}"}
