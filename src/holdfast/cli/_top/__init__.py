"""
`holdfast top`, piece by piece.

    frame.py    one snapshot as lines, no wider and no higher than the terminal
    screen.py   the live view: draws a frame a second, and waits for a key
"""
