# Every member, and `default`: the command gemma-triton with all that it starts.
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
    runtimeInputs = [ environment ];
    # Triton starts its stub through bash, and the stub finds its Python by PATH. The bundled model lies
    # beside the model repository.
    text = ''
      export GEMMA_MODEL_REPOSITORY="''${GEMMA_MODEL_REPOSITORY:-${root}/model_repository}"
      exec ${environment}/bin/gemma-triton "$@"
    '';
  };
}
