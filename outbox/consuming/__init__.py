"""Kafka in: handlers of consumed messages, each with its effect exactly once."""
