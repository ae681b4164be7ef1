"""The Redis and the billing service that start themselves when none is named. Real servers, in the data directory."""
