; A small kitchen for tests, in the format of ALFWorld's problems.
(define (problem small_kitchen)
(:domain alfred)
(:objects
  agent1 - agent
  AppleType MugType KnifeType DeskLampType BoxType - otype
  CabinetType FridgeType MicrowaveType SinkBasinType CounterTopType DiningTableType - rtype
  Apple_bar_1 Apple_bar_2 Mug_bar_1 Knife_bar_1 DeskLamp_bar_1 Box_bar_1 - object
  Cabinet_bar_1 - receptacle
  Fridge_bar_1 - receptacle
  Microwave_bar_1 - receptacle
  Sink_bar_1_bar_SinkBasin - receptacle
  CounterTop_bar_1 DiningTable_bar_1 - receptacle
  loc_bar_0 loc_bar_1 loc_bar_2 loc_bar_3 loc_bar_4 - location)
(:init
  (atLocation agent1 loc_bar_0)
  (receptacleType Cabinet_bar_1 CabinetType)
  (receptacleType Fridge_bar_1 FridgeType)
  (receptacleType Microwave_bar_1 MicrowaveType)
  (receptacleType Sink_bar_1_bar_SinkBasin SinkBasinType)
  (receptacleType CounterTop_bar_1 CounterTopType)
  (receptacleType DiningTable_bar_1 DiningTableType)
  (receptacleAtLocation Cabinet_bar_1 loc_bar_1)
  (receptacleAtLocation CounterTop_bar_1 loc_bar_1) ; shares its place with the cabinet
  (receptacleAtLocation Fridge_bar_1 loc_bar_2)
  (receptacleAtLocation Microwave_bar_1 loc_bar_2)
  (receptacleAtLocation Sink_bar_1_bar_SinkBasin loc_bar_3)
  (receptacleAtLocation DiningTable_bar_1 loc_bar_4)
  (openable Cabinet_bar_1) (openable Fridge_bar_1) (openable Microwave_bar_1)
  (canContain CounterTopType AppleType) (canContain CounterTopType MugType)
  (canContain CounterTopType KnifeType) (canContain DiningTableType AppleType)
  (canContain DiningTableType BoxType) (canContain FridgeType AppleType)
  (objectType Apple_bar_1 AppleType) (objectType Apple_bar_2 AppleType)
  (objectType Mug_bar_1 MugType) (objectType Knife_bar_1 KnifeType)
  (objectType DeskLamp_bar_1 DeskLampType) (objectType Box_bar_1 BoxType)
  (pickupable Apple_bar_1) (pickupable Apple_bar_2) (pickupable Mug_bar_1)
  (pickupable Knife_bar_1) (pickupable Box_bar_1)
  (cleanable Apple_bar_1) (cleanable Apple_bar_2) (cleanable Mug_bar_1)
  (heatable Apple_bar_1) (coolable Apple_bar_1) (heatable Apple_bar_2) (coolable Apple_bar_2)
  (sliceable Apple_bar_1) (sliceable Apple_bar_2)
  (toggleable DeskLamp_bar_1)
  (isReceptacleObject Box_bar_1)
  (inReceptacleObject Mug_bar_1 Box_bar_1)
  (inReceptacle Apple_bar_1 CounterTop_bar_1) (objectAtLocation Apple_bar_1 loc_bar_1)
  (inReceptacle Knife_bar_1 CounterTop_bar_1) (objectAtLocation Knife_bar_1 loc_bar_1)
  (inReceptacle Apple_bar_2 Cabinet_bar_1) (objectAtLocation Apple_bar_2 loc_bar_1)
  (inReceptacle DeskLamp_bar_1 CounterTop_bar_1) (objectAtLocation DeskLamp_bar_1 loc_bar_1)
  (inReceptacle Box_bar_1 DiningTable_bar_1) (objectAtLocation Box_bar_1 loc_bar_4))
(:goal (and
  (exists (?r - receptacle)
    (exists (?o - object)
      (and (heatable ?o) (objectType ?o AppleType) (receptacleType ?r DiningTableType)
           (isHot ?o) (inReceptacle ?o ?r)))))))
