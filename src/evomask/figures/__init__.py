"""Figures, one file each. A function takes data and returns a matplotlib `Figure`; `style.save` writes it to a file.

masks.py            masks at several stages of training            (Fig. 7 of the paper)
hierarchy.py        cuts of the tree at several depths, the tree   (Fig. 6)
attention.py        where chosen patches look                      (Fig. 8)
reconstruction.py   what a host restores
segmentation.py     classes of pixels, true and predicted          (Fig. 9)
detection.py        what a detector finds, beside the truth
curves.py           how a run went
show.py             the first four for a model and images at hand  (`evomask show`)
report.py           all of it for a run, on one page               (`evomask report`)
style.py            what they have in common
"""
