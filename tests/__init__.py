"""Tests of the gateway; the paths mirror the package."""
