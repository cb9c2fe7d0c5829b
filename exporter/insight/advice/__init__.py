"""Facts -> sentences that an operator can act on, for the status page."""

from exporter.insight.advice.advise import advise
from exporter.insight.advice.facts import Advice, CloseCount, Facts, PastMassClose, Weight
from exporter.insight.advice.returns import remedy, told

__all__ = ["Advice", "CloseCount", "Facts", "PastMassClose", "Weight", "advise", "remedy", "told"]
