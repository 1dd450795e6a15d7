"""The real agent programs, from npm, driven by a scripted model on loopback: no other network, no real model."""
