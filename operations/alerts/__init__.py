"""Alerts: what is wrong now, told once to whoever should know, by log, e-mail or webhook."""
