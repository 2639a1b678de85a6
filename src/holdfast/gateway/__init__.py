"""The door over HTTP: requests in, problem documents and events out."""
