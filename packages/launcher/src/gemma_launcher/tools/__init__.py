"""Subcommands other than ``serve``: chat, bench, plan, doctor, reload and playground."""
