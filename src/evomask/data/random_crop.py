"""The random crop that everything is trained on."""

from torchvision.transforms import v2


def random_crop(size: tuple[int, int], scale: tuple[float, float], option: str = "--crop-scale") -> v2.RandomResizedCrop:
    """A part of an image, of proportions between 3:4 and 4:3, scaled to a size.

    Args:
        size: height and width to scale it to.
        scale: range of the share of the image's area that it takes.
        option: what the scale is called where it is given.

    Raises:
        ValueError: the scale is no range of shares.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"{option} is a range of shares of the area, within (0, 1], not {scale}")
    return v2.RandomResizedCrop(list(size), scale=scale, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
