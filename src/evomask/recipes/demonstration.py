"""`evomask demo`: the whole path on the embedded scenes, from nothing to a report."""

from pathlib import Path

from evomask.figures.report import write_report
from evomask.models.encoders import load_encoder
from evomask.recipes.launch import start, untrained_encoder
from evomask.recipes.mae import demo
from evomask.tasks.knn import KnnConfig, evaluate_knn
from evomask.tasks.result import write_result


def run_demo(out: Path | None) -> Path:
    """Pretrain, print kNN accuracy of the untrained and the pretrained encoder, write the report; returns the run's folder."""
    config = demo()
    run = start(config, out, command="evomask demo")
    print("\nkNN accuracy on scenes that were not trained on, in percent:")
    results = run / "results"
    results.mkdir(exist_ok=True)
    encoders = {"knn_untrained": untrained_encoder(config), "knn": load_encoder(str(run))}
    knn = KnnConfig()
    for name, encoder in encoders.items():
        metrics = evaluate_knn(encoder, knn)
        write_result(results / f"{name}.json", "knn", metrics, {"encoder": encoder.name, "task": knn})
        print(f"  {'untrained' if 'untrained' in name else 'pretrained':12}{metrics['top1']:5.1f}")
    print(f"  {'majority':12}{metrics['majority']:5.1f}")
    print(f"\n{write_report(run)}")
    return run
