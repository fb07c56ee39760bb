# Python 3.12 of nixpkgs with the members of this monorepo in its package set, rendered from their pyproject.toml.
{
  pkgs,
  projects,
  lock,
}:
let
  inherit (pkgs) lib;

  # Wheels that torch's build on the Python index needs beside it; the one of nixpkgs has CUDA linked.
  carried = [
    "nvidia-cublas"
    "nvidia-cuda-nvrtc"
  ];
  without =
    project:
    lib.recursiveUpdate project {
      dependencies.dependencies = lib.filter (
        dependency: !lib.elem dependency.name carried
      ) project.dependencies.dependencies;
    };

  member =
    final: project:
    final.buildPythonPackage (
      project.renderers.buildPythonPackage {
        inherit (final) python;
        pythonPackages = final;
        project = without project;
      }
      // {
        # nixpkgs has one version of each package; the exact ones are poetry.lock's.
        pythonRelaxDeps = true;
        pythonRemoveDeps = carried;
      }
    );

  # The page is written for Gradio 6, and nixpkgs was seen with 5: Gradio and its own helpers are the lock's.
  gradio = [
    "gradio"
    "gradio-client"
    "groovy"
    "hf-gradio"
    "safehttpx"
  ];

  python = pkgs.python312.override {
    self = python;
    packageOverrides =
      final: prev:
      lib.mapAttrs (_: member final) projects.members
      // lib.genAttrs gradio (lock.wheelWithDependencies final)
      // {
        # Triton's Python stub is built against numpy 1.
        numpy = lock.wheel final "numpy";
        nvidia-pytriton = lock.wheel final "nvidia-pytriton";
        torch = prev.torch-bin;
        torchvision = prev.torchvision-bin;
      };
  };
in
python
