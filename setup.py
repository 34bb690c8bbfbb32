"""Metadata from settings.ini; data folders of the repository become folders inside the package."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
cfg = ConfigParser(delimiters=["="])
cfg.read(here / "settings.ini", encoding="utf-8")
cfg = cfg["DEFAULT"]


def lines(key): return [o for o in cfg[key].splitlines() if o.strip()]


def extra(name):
    "Requirements of an extra, after those of the extras that it extends"
    return [o for base in cfg.get(f"{name}_extends", "").split() for o in extra(base)] + lines(f"{name}_requirements")


extras = [key.removesuffix("_requirements") for key in cfg if key.endswith("_requirements")]


# in the wheel -> in the repository; in an editable install the code reads the repository's folders themselves
folders = {"stanhlic.manifests": "data/manifests", "stanhlic.published": "data/published", "stanhlic.notebooks": "nbs/papers", "stanhlic.workflow": "workflow"}
folders = {name: folder for name, folder in folders.items() if (here / folder).is_dir()}
statuses = {"1": "1 - Planning", "2": "2 - Pre-Alpha", "3": "3 - Alpha", "4": "4 - Beta", "5": "5 - Production/Stable"}
readme = here / "README.md"

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else cfg["description"],
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license=cfg["license"],
    keywords=cfg["keywords"].split(", "),
    python_requires=f">={cfg['min_python']}",
    project_urls=dict(line.split(" = ") for line in lines("urls")),
    classifiers=[
        "Development Status :: " + statuses[cfg["status"]],
        "Intended Audience :: " + cfg["audience"],
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        *[f"Programming Language :: Python :: {v}" for v in cfg["pythons"].split()],
        "Topic :: Multimedia :: Graphics :: Graphics Conversion",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
    packages=find_packages(include=["stanhlic", "stanhlic.*"]) + list(folders),
    package_dir=folders,
    package_data={
        "stanhlic": ["py.typed", "view.html", "weights/*.safetensors", "profiles*.yaml", "**/profiles*.yaml"],
        "stanhlic.manifests": ["*.toml"],
        "stanhlic.published": ["*.csv"],
        "stanhlic.notebooks": ["*.yaml", "**/*.ipynb", "**/*.yaml"],
        "stanhlic.workflow": ["Snakefile", "README.md"],
    },
    include_package_data=False,
    install_requires=lines("requirements"),
    extras_require={name: extra(name) for name in extras},
    entry_points={"console_scripts": lines("console_scripts")},
    zip_safe=False,
)
