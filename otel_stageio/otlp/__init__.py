"""OTLP/JSON in and out, and the wiring to the OpenTelemetry SDK."""
