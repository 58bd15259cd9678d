"""The names of checks that records speak of."""

NULL = "w = 0: the null field"
LABELLED = "w = 1: the labelled field"
OTHER = "w = 0.3 to 7.5: u_null + w (u_y - u_null)"
END = "end of the flow, w = 1"
LIMIT = "limit of small steps, w = 1"
ORDER = "order at least, w = 1"
KEY = "difference by another key"
CALL = "call"
RUN = "all calls"
SLOPE = "slope at the exact view, in standard errors"
DIFFUSION = ("drift u + sigma^2 s / 2", *(f"law at the end, c = {strength}" for strength in ("0.5", "1", "1.5")))
VALUES = "values for labels", "values for the null label"
LAW = "mean and covariance by label"


def law_at(*steps: int) -> tuple[str, ...]:
    """The checks of the law at numbers of steps."""
    return tuple(f"{n} steps, {LAW}" for n in steps)
