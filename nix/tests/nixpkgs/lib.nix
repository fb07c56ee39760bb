# The functions of nixpkgs' lib that nix/ and its tests use.
let
  inherit (builtins)
    attrNames
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    head
    length
    listToAttrs
    mapAttrs
    stringLength
    substring
    ;
in
rec {
  inherit
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    head
    mapAttrs
    attrNames
    ;
  inherit (builtins) attrValues groupBy replaceStrings;
  splitString = separator: text: filter builtins.isString (builtins.split (escapeRegex separator) text);
  versionAtLeast = version: other: builtins.compareVersions version other >= 0;
  foldl' = builtins.foldl';
  fix =
    f:
    let
      x = f x;
    in
    x;
  importTOML = path: builtins.fromTOML (builtins.readFile path);
  nameValuePair = name: value: { inherit name value; };
  genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
  filterAttrs =
    keep: set:
    listToAttrs (
      concatMap (name: if keep name set.${name} then [ (nameValuePair name set.${name}) ] else [ ]) (
        attrNames set
      )
    );
  mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
  optional = condition: value: if condition then [ value ] else [ ];
  optionalAttrs = condition: set: if condition then set else { };
  recursiveUpdate =
    left: right:
    left
    // mapAttrs (
      name: value:
      if builtins.isAttrs value && builtins.isAttrs (left.${name} or null) then
        recursiveUpdate left.${name} value
      else
        value
    ) right;
  last = list: elemAt list (length list - 1);
  hasInfix = part: text: length (builtins.split (escapeRegex part) text) > 1;
  escapeRegex = replaceStrings' [ "." "+" ] [ "\\." "\\+" ];
  replaceStrings' = builtins.replaceStrings;
  removePrefix =
    prefix: text:
    if substring 0 (stringLength prefix) text == prefix then
      substring (stringLength prefix) (stringLength text) text
    else
      text;
  toLower = builtins.replaceStrings (split' "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (
    split' "abcdefghijklmnopqrstuvwxyz"
  );
  split' = text: builtins.genList (at: substring at 1 text) (stringLength text);
  makeLibraryPath = packages: concatStringsSep ":" (map (package: "${package}/lib") packages);
  getExe = package: "${package}/bin/${package.meta.mainProgram or package.pname or package.name}";
}
