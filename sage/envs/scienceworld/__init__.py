"""ScienceWorld 1.2.3 (Wang et al. 2022): the package's own simulator, in a JVM."""
