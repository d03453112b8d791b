"""Measures the TSAE of a finished run again: `python evaluate.py run=outputs/...`, with the run's own configuration."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from atomlab import load_sae
from atomlab.evaluation import evaluate_run
from atomlab.launch import launch


def evaluate(config: DictConfig) -> float:
    """Writes results.json, results.csv and report.html into this run's folder; returns the atoms' held-out R² in the S-norm.

    Raises:
        FileNotFoundError: `run` is no finished run of train.py.
    """
    source = Path(config.run)
    if not (source / ".hydra" / "config.yaml").exists():
        raise FileNotFoundError(f"run={source} is no run folder of train.py: it has no .hydra/config.yaml.")
    trained = OmegaConf.load(source / ".hydra" / "config.yaml")
    sae = load_sae(source / "sae")
    data = instantiate(trained.activations)
    data.prepare_data()
    data.setup()
    rows, text = evaluate_run(
        sae,
        data,
        instantiate(config.metrics),
        Path(HydraConfig.get().runtime.output_dir),
        shrinkage=trained.sae.shrinkage,
        configuration=OmegaConf.to_yaml(trained),
        seed=trained.seed,
    )
    print(text)
    return rows[0]["r2_test_s"]


if __name__ == "__main__":
    launch(evaluate, "conf", "evaluate")
