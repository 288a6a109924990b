"""Where records go on this machine. Sinks know nothing of stages; they write synchronously and never raise."""
