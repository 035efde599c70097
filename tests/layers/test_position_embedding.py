import pytest
import torch

from vtfast.layers.position_embedding import resize_places, resize_sequence


@pytest.mark.parametrize("new", [(3, 5), (5, 3), (1, 15), (6, 10), (2, 2), (7, 1)], ids=str)
def test_each_place_takes_the_nearest_of_its_row_and_column(new: tuple[int, int]) -> None:
    embedding = torch.randn(1, 2 + 15, 4)
    resized = resize_places(embedding, (3, 5), new)
    assert torch.equal(resized[:, :2], embedding[:, :2])
    for h in range(new[0]):
        for w in range(new[1]):
            source = embedding[0, 2 + h * 3 // new[0] * 5 + w * 5 // new[1]]
            assert torch.equal(resized[0, 2 + h * new[1] + w], source)


@pytest.mark.parametrize("count", [1, 4, 5, 8, 15])
@pytest.mark.parametrize("num_prefix", [0, 1])
def test_each_frame_takes_the_nearest(count: int, num_prefix: int) -> None:
    embedding = torch.randn(1, num_prefix + 5, 4)
    resized = resize_sequence(embedding, count, num_prefix)
    indices = [num_prefix + i * 5 // count for i in range(count)]
    assert torch.equal(resized, embedding[:, [*range(num_prefix), *indices]])


def test_gradient_reaches_what_was_repeated() -> None:
    places = torch.randn(1, 1 + 4, 3, requires_grad=True)
    resize_places(places, (2, 2), (4, 2)).sum().backward()
    assert torch.equal(places.grad[0, :, 0], torch.tensor([1.0, 2, 2, 2, 2]))
    times = torch.randn(1, 2, 3, requires_grad=True)
    resize_sequence(times, 5).sum().backward()
    assert torch.equal(times.grad[0, :, 0], torch.tensor([3.0, 2]))


def test_the_own_size_is_no_copy() -> None:
    embedding = torch.randn(1, 1 + 6, 3)
    assert resize_places(embedding, (2, 3), (2, 3)) is embedding
    assert resize_sequence(embedding, 6, 1) is embedding
