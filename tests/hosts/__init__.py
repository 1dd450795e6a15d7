"""The real agent programs and MCP clients, from npm; the agents are driven by a scripted model on loopback.

No other network, no real model.
"""
