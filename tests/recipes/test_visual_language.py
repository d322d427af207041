from evomask.recipes import EVALUATIONS


def test_settings_of_table_vii_are_the_papers() -> None:
    for task in ("vqa", "counting", "identification"):
        frozen, joint = EVALUATIONS[f"{task}_vicuna"](), EVALUATIONS[f"{task}_vicuna_joint"]()
        assert (frozen.tune_encoder, joint.tune_encoder) == (False, True)
        for config in (frozen, joint):
            assert config.language == "frozen" and config.new_tokens == 32
            assert config.optim.base_lr * config.loop.batch_size / 256 == 1e-6
            resampler = config.resampler
            assert (resampler.latents, resampler.depth, resampler.heads, resampler.head_width) == (32, 6, 16, 96)
    assert EVALUATIONS["vqa_vicuna"]().repetition_penalty == 1.5


def test_crops_are_for_the_papers_rows_alone() -> None:
    for task in ("counting", "identification"):
        assert EVALUATIONS[f"{task}_vicuna"]().crop_scale == (0.5, 1.0)
        assert EVALUATIONS[f"{task}_small"]().crop_scale == (1.0, 1.0)
