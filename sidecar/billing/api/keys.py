"""What handlers find in the application."""

from __future__ import annotations

from aiohttp import web

from sidecar.billing.metrics import Metrics
from sidecar.billing.service import Billing

BILLING = web.AppKey("billing", Billing)
METRICS = web.AppKey("metrics", Metrics)
