"""The commands: names, options, help. What they do is in a module beside this package, loaded when it is asked for."""
