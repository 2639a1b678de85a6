"""
`holdfast chat`, piece by piece.

    main thread                      loop thread
    terminal.py or piped.py  ◀─told─  talk.py: one order  ──▶ door.py: store.py or http.py
    screen.py: readline

The main thread reads and prints and does nothing else; the loop thread talks to the door and
does nothing of that.  What passes between them are the values of told.py.
"""
