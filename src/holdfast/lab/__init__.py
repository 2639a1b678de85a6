"""The founding race, the benches, and the first light.  Real processes, files and HTTP."""
