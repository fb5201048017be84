"""Plug-ins that try the edges of the compiler: families of layers and axes of the mesh that specc does not have."""
