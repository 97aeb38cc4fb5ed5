"""Metrics: what moves and what is refused, as counters of Prometheus and of OpenTelemetry.

:mod:`statekit.metrics.prometheus` and :mod:`statekit.metrics.opentelemetry` each need their own package, which is an
extra and is imported when it is first used.
"""
