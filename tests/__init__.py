"""The tests of tokenmill: black-box where they can be, each module saying what it proves."""
