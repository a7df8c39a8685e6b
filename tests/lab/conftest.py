"""The lab's own fixtures, for the tests of the lab."""

from lab.fixtures import lab as lab
