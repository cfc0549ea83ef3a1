"""The data sets, one entry each; whatever depends on which there are is derived from it.

A data set whose files an existing reader reads needs its entry here and nothing else. Imports no torch: command line,
workflow and schemas read it at their start.
"""

import math
from typing import NamedTuple


class Facts(NamedTuple):
    """What is fixed about a data set."""

    reader: str  # its name in ff.data.readers
    shape: tuple[int, int, int]  # of an image: C, H, W
    train_images: int
    test_images: int
    mean: tuple[float, ...]  # per channel, of the training images' values in 0..1
    std: tuple[float, ...]
    classes: tuple[str, ...]
    files: tuple[str, ...] = ()  # below the data folder, those of the test images last
    md5: tuple[str, ...] = ()  # of the files, as published with them
    torchvision: str = ""  # the class of torchvision.datasets that fetches the files
    package: str = ""  # the Python package that has the images where there are no files

    @property
    def input_size(self) -> int:
        """The number of values of an image, C x H x W: the first entry of a network's layers."""
        return math.prod(self.shape)


DIGIT_NAMES = tuple("0123456789")
IDX_FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
# In the order of their labels; https://www.cs.toronto.edu/~kriz/cifar.html.
CIFAR100_NAMES = """
apple, aquarium fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy, bridge, bus, butterfly, camel,
can, castle, caterpillar, cattle, chair, chimpanzee, clock, cloud, cockroach, couch, crab, crocodile, cup, dinosaur,
dolphin, elephant, flatfish, forest, fox, girl, hamster, house, kangaroo, keyboard, lamp, lawn mower, leopard, lion,
lizard, lobster, man, maple tree, motorcycle, mountain, mouse, mushroom, oak tree, orange, orchid, otter, palm tree,
pear, pickup truck, pine tree, plain, plate, poppy, porcupine, possum, rabbit, raccoon, ray, road, rocket, rose, sea,
seal, shark, shrew, skunk, skyscraper, snail, snake, spider, squirrel, streetcar, sunflower, sweet pepper, table, tank,
telephone, television, tiger, tractor, train, trout, tulip, turtle, wardrobe, whale, willow tree, wolf, woman, worm
"""
# Constants: the training set's mean and deviation as commonly used; DIGITS: computed from its training part.
DATASETS = {
    "MNIST": Facts(
        reader="idx",
        shape=(1, 28, 28),
        train_images=60_000,
        test_images=10_000,
        mean=(0.1307,),
        std=(0.3081,),
        classes=DIGIT_NAMES,
        files=tuple(f"MNIST/raw/{name}" for name in IDX_FILES),
        md5=(
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
        torchvision="MNIST",
    ),
    "FMNIST": Facts(
        reader="idx",
        shape=(1, 28, 28),
        train_images=60_000,
        test_images=10_000,
        mean=(0.2860,),
        std=(0.3530,),
        classes=(
            "t-shirt",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
        files=tuple(f"FashionMNIST/raw/{name}" for name in IDX_FILES),
        md5=(
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
        torchvision="FashionMNIST",
    ),
    "KMNIST": Facts(
        reader="idx",
        shape=(1, 28, 28),
        train_images=60_000,
        test_images=10_000,
        mean=(0.1918,),
        std=(0.3483,),
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        # As they are published: there are MD5s of the packed files only, and torchvision keeps them.
        files=tuple(f"KMNIST/raw/{name}.gz" for name in IDX_FILES),
        md5=(
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
        torchvision="KMNIST",
    ),
    "SVHN": Facts(
        reader="mat",
        shape=(3, 32, 32),
        train_images=73_257,
        test_images=26_032,
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        classes=DIGIT_NAMES,
        files=("SVHN/train_32x32.mat", "SVHN/test_32x32.mat"),
        md5=("e26dedcc434d2e4c54c9b2d4a06d8373", "eb5a983be6a315427106f1b164d9cef3"),
        torchvision="SVHN",
    ),
    "CIFAR10": Facts(
        reader="cifar",
        shape=(3, 32, 32),
        train_images=50_000,
        test_images=10_000,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        files=tuple(f"cifar-10-batches-py/{n}" for n in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")),
        md5=(
            "c99cafc152244af753f735de768cd75f",
            "d4bba439e000b95fd0a9bffe97cbabec",
            "54ebc095f3ab1f0389bbae665268c751",
            "634d18415352ddfa80567beed471001a",
            "482c414d41f54cd18b22e5b47cb7c3cb",
            "40351d587109b95175f43aff81a1287e",
        ),
        torchvision="CIFAR10",
    ),
    "CIFAR100": Facts(
        reader="cifar",
        shape=(3, 32, 32),
        train_images=50_000,
        test_images=10_000,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        classes=tuple(" ".join(CIFAR100_NAMES.split()).split(", ")),
        files=("cifar-100-python/train", "cifar-100-python/test"),
        md5=("16019d7e3df5f24257cddd939b257f8d", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        torchvision="CIFAR100",
    ),
    "DIGITS": Facts(
        reader="digits",
        shape=(1, 28, 28),
        train_images=1437,
        test_images=360,
        mean=(0.3049,),
        std=(0.3244,),
        classes=DIGIT_NAMES,
        package="scikit-learn",
    ),
}
