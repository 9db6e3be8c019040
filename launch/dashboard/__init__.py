"""The live page of campaigns: what they do, what they have found, and one file of it to keep."""
