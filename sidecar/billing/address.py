"""Where a billing API says that it listens: a file in its data directory, `{"address": "127.0.0.1:8095", "pid": 1}`."""

ADDRESS_FILE = "billing.json"
