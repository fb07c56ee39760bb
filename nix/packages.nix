# Every member of this repository, and `default`: the command gemma-triton with everything that it starts.
{
  pkgs,
  python,
  projects,
  root,
}:
let
  inherit (pkgs) lib;
  names = lib.attrNames projects.members;
  environment = python.withPackages (packages: map (name: packages.${name}) names);
in
lib.genAttrs names (name: python.pkgs.${name})
// {
  default = pkgs.writeShellApplication {
    name = "gemma-triton";
    runtimeInputs = [
      environment
      pkgs.stdenv.cc # for the CPU kernels and torch.compile
    ];
    # tritonserver starts its Python stub through bash, and the stub finds Python on PATH. The bundled model is
    # next to the packages.
    text = ''
      export GEMMA_MODEL_REPOSITORY="''${GEMMA_MODEL_REPOSITORY:-${root}/packages/model/src/gemma_model/model_repository}"
      exec ${environment}/bin/gemma-triton "$@"
    '';
  };
}
