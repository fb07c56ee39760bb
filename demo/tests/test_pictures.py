import random
import re
from collections import Counter

import numpy as np
import pytest
from demo import question_sampling, questions
from demo.pictures import COLOURS, MOST, SHAPES, Item, Scene, draw, make_scene, outline
from demo.pool import as_pixels, items_of, picture_of, resized


def scene(*items: Item) -> Scene:
    return Scene(items, 1.0, (255, 255, 255))


RED_CIRCLE = Item("circle", "red", 0.2, 0.5, 0.4)
BLUE_STAR = Item("star", "blue", 0.5, 0.2, 0.25)
RED_STAR = Item("star", "red", 0.8, 0.8, 0.25)


def test_the_same_seed_gives_the_same_picture() -> None:
    first, again = picture_of(5, 3), picture_of(5, 3)
    assert first[0] == again[0]
    assert first[1].tobytes() == again[1].tobytes()
    assert picture_of(5, 4)[1].tobytes() != first[1].tobytes()


@pytest.mark.parametrize("count", range(MOST + 1))
def test_a_scene_has_distinct_shapes_from_left_to_right(count: int) -> None:
    for seed in range(50):
        items = make_scene(random.Random(seed), count).items
        assert len(items) == count
        assert [item.x for item in items] == sorted(item.x for item in items)
        assert max(Counter(item.name for item in items).values(), default=0) <= 1


def test_every_shape_and_colour_is_drawn() -> None:
    items = [item for seed in range(400) for item in make_scene(random.Random(seed)).items]
    assert {item.shape for item in items} == set(SHAPES)
    assert {item.colour for item in items} == set(COLOURS)


def test_the_centre_of_a_shape_has_its_colour() -> None:
    off: list[float] = []
    for seed in range(60):
        rng = random.Random(seed)
        found = make_scene(rng, 1)
        picture = np.asarray(draw(rng, found), float)
        item = found.items[0]
        at = picture[int(item.y * picture.shape[0]), int(item.x * picture.shape[1])]
        off.append(float(np.abs(at - COLOURS[item.colour]).max()))
    assert np.median(off) < 25
    assert np.mean(np.array(off) < 80) > 0.9


def test_an_outline_has_its_corners_around_the_centre() -> None:
    for shape, corners in (("triangle", 3), ("square", 4), ("star", 10)):
        points = np.array(outline(shape, 50, 60, 10, 0.3))
        assert points.shape == (corners, 2)
        assert np.allclose(points.mean(0), (50, 60))
        assert np.linalg.norm(points - (50, 60), axis=1).max() == pytest.approx(10)


def test_pixels_have_the_shape_and_range_of_the_towers_input() -> None:
    pixels = as_pixels(np.stack([resized(picture_of(1, number)[1]) for number in range(3)]))
    assert pixels.shape == (3, 3, 128, 128)
    assert -1 <= pixels.min() < 0 < pixels.max() <= 1


def test_items_name_shape_and_colour_by_number() -> None:
    table = items_of([scene(RED_CIRCLE, BLUE_STAR)])
    assert table.shape == (1, MOST, 6)
    assert table[0, :, 0].tolist() == [1, 1, 0, 0]
    assert table[0, 1, 1:3].tolist() == [SHAPES.index("star"), list(COLOURS).index("blue")]


@pytest.mark.parametrize(
    ("items", "description"),
    [
        ((), "I see an empty picture."),
        ((RED_CIRCLE,), "I see a red circle."),
        ((RED_CIRCLE, BLUE_STAR), "I see a red circle and a blue star."),
        ((RED_CIRCLE, BLUE_STAR, RED_STAR), "I see a red circle, a blue star and a red star."),
    ],
)
def test_a_description_names_all_from_left_to_right(items: tuple[Item, ...], description: str) -> None:
    assert questions.description(scene(*items)) == description


def answers(asker: questions.Asker, found: Scene) -> set[tuple[str, str]]:
    asked = (asker(random.Random(seed), found) for seed in range(300))
    return {(one.question, one.answer) for one in asked if one is not None}


THREE = scene(RED_CIRCLE, BLUE_STAR, RED_STAR)


def test_counting() -> None:
    assert {answer for _, answer in answers(questions.count, THREE)} == {"There are three shapes."}
    some = answers(questions.count_some, THREE)
    assert ("How many stars are there?", "There are two stars.") in some
    assert ("How many circles are there?", "There is one circle.") in some
    assert ("How many red shapes are there?", "There are two red shapes.") in some
    assert ("How many squares are there?", "There are no squares.") in some


def test_questions_about_colours_and_shapes_have_one_correct_answer() -> None:
    colours = answers(questions.colour_of, THREE)
    assert ("What colour is the circle?", "The circle is red.") in colours
    assert ("What colour is the square?", "I see no square.") in colours
    assert not any("star" in question for question, _ in colours)
    shapes = answers(questions.shape_of, THREE)
    assert ("Which shape is blue?", "The star is blue.") in shapes
    assert not any("red" in question for question, _ in shapes)


def test_questions_whether_a_shape_is_in_the_image() -> None:
    told = answers(questions.is_there, THREE)
    assert ("Is there a red star?", "Yes.") in told
    assert ("Is there a blue circle?", "No.") in told
    for question, answer in told:
        wanted = re.sub(r"^.* an? | in the picture|\?", "", question)
        assert (answer == "Yes.") == any(item.name.endswith(wanted) for item in THREE.items), question


def test_neighbours() -> None:
    told = answers(questions.beside, THREE)
    assert ("What is left of the blue star?", "A red circle.") in told
    assert ("What is right of the red star?", "Nothing.") in told
    assert ("What is left of the circle?", "Nothing.") in told


def test_places_and_sizes() -> None:
    assert ("Where is the circle?", "It is on the left.") in answers(questions.where, THREE)
    assert ("Where is the blue star?", "It is at the top.") in answers(questions.where, THREE)
    assert {a for _, a in answers(questions.biggest, THREE)} == {"The red circle."}
    big = scene(Item("square", "green", 0.5, 0.5, 0.8))
    assert {a for _, a in answers(questions.size_of, big)} == {"It is big."}


def test_several_pictures() -> None:
    scenes = [scene(RED_CIRCLE), scene(BLUE_STAR)]
    asked = (question_sampling.which_picture(random.Random(seed), scenes) for seed in range(300))
    told = {(one.question, one.answer) for one in asked if one is not None}
    assert ("Which one shows a circle?", "The first picture.") in told
    assert ("What do you see in the second picture?", "I see a blue star.") in told


def test_a_follow_up_asks_for_another_shape() -> None:
    found = scene(RED_CIRCLE, BLUE_STAR)
    before = questions.Asked("colour", "What colour is the circle?", "The circle is red.")
    asked = {question_sampling.follow_up(random.Random(seed), found, before) for seed in range(50)}
    assert {one.answer for one in asked if one} == {"The star is blue."}
