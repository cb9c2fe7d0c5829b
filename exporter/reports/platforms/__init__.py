"""Managed WebSocket platforms, whose own events are taken as they are: a file and a row of the table for each."""

from collections.abc import Mapping
from typing import Final

from exporter.reports.platforms import aws_apigateway
from exporter.reports.platforms.platform import Platform

PLATFORMS: Final[Mapping[str, Platform]] = {
    "aws-apigateway": aws_apigateway.PLATFORM,
}
"""By the last part of the path to which their events are posted."""

__all__ = ["PLATFORMS", "Platform"]
