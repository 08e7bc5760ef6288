"""What a network learns to do with an image: the loss, and how well it is done."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy


@dataclass(frozen=True)
class Task:
    """A loss to train with and a score to test with.

    Attributes
    ----------
    loss : callable (logits (n, n_classes), labels) -> scalar
    correct : callable (logits, labels) -> scalar in [0, 1], a quick score of one batch
    score : callable (logits, labels) -> float in [0, 1], of all test images
    weight : factor on the loss (beta of Srivastava et al. 2025)
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    correct: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], float]
    weight: float = 1.0


def _share_right(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels).float().mean()


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return int((logits.argmax(1) == labels).sum()) / len(labels)


def _share_of_answers_right(logits: Tensor, labels: Tensor) -> Tensor:
    return ((logits > 0) == labels.bool()).float().mean()


def _each_class(logits: Tensor, labels: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def mean_average_precision(logits: Tensor, labels: Tensor) -> float:
    """Mean over classes of the average precision with which `logits` rank images with that class before the others.

    Parameters
    ----------
    logits : (n_images, n_classes)
    labels : (n_images, n_classes) of 0 and 1

    Returns
    -------
    float in [0, 1]; by chance the mean share of images with a class.

    Raises
    ------
    ValueError for a class that no image has, which has no precision.
    """
    from sklearn.metrics import average_precision_score

    if bool((labels.sum(0) == 0).any()):
        raise ValueError(f"class {int((labels.sum(0) == 0).nonzero()[0])} is in none of {len(labels)} images")
    return float(average_precision_score(labels.cpu().numpy(), logits.float().cpu().numpy(), average="macro"))


CLASSES = Task(cross_entropy, _share_right, _accuracy)  # one label an image
MANY_CLASSES = Task(_each_class, _share_of_answers_right, mean_average_precision)  # any number of classes at once
