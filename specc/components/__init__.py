"""What a spec is made of: a module a component, which is the whole truth about it."""
