"""From files on disk to rows that may be trained on, chosen with, or tested on."""
