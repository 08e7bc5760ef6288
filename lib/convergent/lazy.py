"""Properties that are computed when they are first read."""

import functools


class cached_property(functools.cached_property):
    """Python's, without the lock that it has before 3.12.

    That lock is one for all instances: while the products of one pair of layers are computed, the thread that wants
    those of another pair would wait.
    """

    def __get__(self, instance, owner=None):
        if instance is None:
            return self
        if self.attrname not in instance.__dict__:
            instance.__dict__[self.attrname] = self.func(instance)
        return instance.__dict__[self.attrname]
