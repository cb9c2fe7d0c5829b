"""`INTERFACE COMMAND...`: opens two packet sockets as descriptors 3 and 4, as a program of any kind may, and executes
COMMAND with them. They receive nothing yet: they are bound to no protocol.
"""

import os
import socket
import sys

if __name__ == "__main__":
    interface, *command = sys.argv[1:]
    sockets = [socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) for _ in range(2)]
    aside = [os.dup(sock.detach()) for sock in sockets]
    for number, descriptor in enumerate(aside, 3):
        os.dup2(descriptor, number)
    os.closerange(5, 100)
    for number in (3, 4):
        sock = socket.socket(fileno=number)
        sock.bind((interface, 0))
        sock.detach()
    os.execvp(command[0], command)
