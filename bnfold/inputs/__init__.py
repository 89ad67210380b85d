"""Inputs for a model: what it asks for, numbers drawn for it, arrays that a user gives."""
