"""Figures, one file each. A function takes data and returns a matplotlib `Figure`; `style.save` writes it to a file.

masks.py               masks at several stages of training                    (Fig. 7 of the paper)
hierarchy.py           cuts of the tree at several depths, the dendrogram      (Fig. 6)
tree.py                the upper part of the tree, each node as its patches
attention.py           where chosen patches look, block by block
attention_heads.py     the same, each head in a colour                         (Fig. 8)
class_attention.py     what the class token looks at                           (Fig. 3a)
attention_distance.py  how far the heads of each block look                    (Fig. 2b)
gradient_by_depth.py   gradients of fine-tuning by block                       (Fig. 11)
mask_difficulty.py     loss behind masks by the depth of their cut
tree_health.py         balance of the trees and their largest group, by stage
agreement.py           agreement of trees with labels through a pretraining
reconstruction.py      what a host restores
curves.py              how a run went
classification.py      how a classifier errs
segmentation.py        classes of pixels, true and predicted                   (Fig. 9)
detection.py           what a detector finds, beside the truth
retrieval.py           what is found for a query, right and wrong              (Fig. 10)
matches.py             patches of two images that look alike                   (Fig. 3c)
show.py                those of images, for a model and images at hand          (`evomask show`)
report.py              all of it for a run, on one page                        (`evomask report RUN`)
comparison.py          several runs side by side, on one page                  (`evomask report RUN RUN`)
explorer.py, paint.py  what `evomask explore` shows, painted in milliseconds
style.py               what they have in common
"""
