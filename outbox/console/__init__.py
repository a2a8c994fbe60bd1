"""The console's pages of the log: events, deliveries, subscribers, lanes."""
