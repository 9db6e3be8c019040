"""The dashboard: a web page on this machine that shows campaigns as they run."""
