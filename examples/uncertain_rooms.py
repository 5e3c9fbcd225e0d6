"""A method of one's own for images: both kinds of uncertainty a pixel, of the noise and of the network.

The head gives each pixel's noise (Kendall & Gal 2017), and dropout stays in predictions (Gal & Ghahramani 2016). Run:

    bmtl train rooms --method examples/uncertain_rooms.py:UNCERTAIN --out runs/uncertain
    bmtl report runs/uncertain

The report shows image, label, prediction, error and uncertainty side by side; the rooms are drawings, see docs/scenes.md.
"""

from bmtl.experiments import Method

UNCERTAIN = Method("uncertain", options={"noise": "heteroscedastic", "dropout": 0.1}, normalize="task_mean")
